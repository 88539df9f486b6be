-- Return a job whose lease has lapsed. Returns {what, started, outages, crashes}, or nil where it lives after all:
--   queued, solo   its ticket waits again
--   give_up        the caller holds the lease now and has to record the end
local leases, lease, attempts, status, list, queued, queues, solo, events = unpack(KEYS)
local job, holder, ttl, message, queue, suspect_at, give_up_at, attempt, worker, lease_ms, status_ttl = unpack(ARGV)
local now = now_ms()
local lapses = redis.call('ZSCORE', leases, job)
if not lapses or tonumber(lapses) > now or (redis.call('HGET', lease, 'attempt') or '') ~= holder then
    return nil
end
blame(attempts, status)
redis.call('EXPIRE', attempts, ttl)
local found = counts(attempts)
if found[3] >= tonumber(give_up_at) then
    hold(leases, lease, job, attempt, worker, queue, lease_ms, now)
    return {'give_up', found[1], found[2], found[3]}
end
redis.call('ZREM', leases, job)
redis.call('DEL', lease)
wait(status, events, status_ttl)
if found[3] >= tonumber(suspect_at) then
    redis.call('ZADD', solo, now, job)
    return {'solo', found[1], found[2], found[3]}
end
push(job, message, queue, list, queued, queues, now)
return {'queued', found[1], found[2], found[3]}
