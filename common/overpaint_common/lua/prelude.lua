-- Put before every script of this folder. All times are of Redis' own clock, in milliseconds.

local function now_ms()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- `message` is a Celery envelope with @queued@ where the ticket time belongs.
local function push(job, message, queue, list, queued, queues, now)
    redis.call('LPUSH', list, (string.gsub(message, '@queued@', string.format('%d', now))))
    redis.call('ZADD', queued, now, job)
    redis.call('SADD', queues, queue)
end

-- Count the death of whoever held a job: as a crash of the job's, or as an outage if it only waited at the time.
local function blame(attempts, status)
    local state, phase = unpack(redis.call('HMGET', status, 'state', 'phase'))
    local waited = state == 'queued'
        or (state == 'running' and (phase == 'fetch' or phase == 'wait' or phase == 'upload'))
    redis.call('HINCRBY', attempts, waited and 'outages' or 'crashes', 1)
end

local function counts(attempts)
    local found = redis.call('HMGET', attempts, 'started', 'outages', 'crashes')
    return {tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0)}
end

local function hold(leases, lease, job, attempt, worker, queue, lease_ms, now)
    redis.call('ZADD', leases, now + lease_ms, job)
    redis.call('HSET', lease, 'attempt', attempt, 'worker', worker, 'queue', queue)
end

-- A moment of a job's live status: each has all the fields.
local function moment(state, phase, worker)
    return {
        'state', state, 'phase', phase, 'step', 0, 'steps', 0, 'worker', worker, 'detail', '', 'seconds_left', '',
    }
end

-- Say that a job waits for a worker.
local function wait(status, events, ttl)
    redis.call('HSET', status, unpack(moment('queued', '', '')))
    redis.call('XADD', events, '*', unpack(moment('queued', '', '')))
    redis.call('EXPIRE', status, ttl)
    redis.call('EXPIRE', events, ttl)
end

-- Say that an attempt has begun, lest its death be blamed on what the one before it was at.
local function begin(status, worker, phase, ttl)
    redis.call('HSET', status, unpack(moment('running', phase, worker)))
    redis.call('EXPIRE', status, ttl)
end
