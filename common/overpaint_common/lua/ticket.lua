-- Queue one ticket, if `condition` holds. Returns the ticket time, or 0 where nothing was queued.
--   always
--   absent  no ticket waits and nobody holds the job
--   move    `member` could be taken out of the sorted set `from`
--   lost    the ticket of time `member` is still the newest and unclaimed
-- `about`, of a job that is accepted now, is what listings tell of it; it counts as queued from here on, unless Redis
-- knows better and it is not `new`.
local list, queued, queues, leases, deadlines, from, jobs, status, events = unpack(KEYS)
local job, message, queue, condition, member, deadline, about, new, listed_ms, status_ttl = unpack(ARGV)
if about ~= '' then
    redis.call('HSET', status, 'about', about)
    if new == '1' or redis.call('HEXISTS', status, 'state') == 0 then
        wait(status, events, status_ttl)
    end
    redis.call('EXPIRE', status, status_ttl)
end
if condition == 'absent' then
    if redis.call('ZSCORE', queued, job) or redis.call('ZSCORE', leases, job) then
        return 0
    end
elseif condition == 'move' then
    if redis.call('ZREM', from, member) == 0 then
        return 0
    end
elseif condition == 'lost' then
    if tonumber(redis.call('ZSCORE', queued, job) or 0) ~= tonumber(member) then
        return 0
    end
end
local now = now_ms()
push(job, message, queue, list, queued, queues, now)
redis.call('ZADD', jobs, 'NX', now, job)
redis.call('ZREMRANGEBYSCORE', jobs, '-inf', now - listed_ms)
if deadline ~= '' then
    redis.call('ZADD', deadlines, deadline, job)
end
return now
