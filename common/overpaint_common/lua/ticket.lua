-- Queue one ticket, if `condition` holds. Returns the ticket time, or 0 where nothing was queued.
--   always
--   absent  no ticket waits and nobody holds the job
--   move    `member` could be taken out of the sorted set `from`
--   lost    the ticket of time `member` is still the newest and unclaimed
local list, queued, queues, leases, deadlines, from = unpack(KEYS)
local job, message, queue, condition, member, deadline = unpack(ARGV)
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
if deadline ~= '' then
    redis.call('ZADD', deadlines, deadline, job)
end
return now
