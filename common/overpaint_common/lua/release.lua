-- End a lease and say what becomes of the job: done | queue | delay | solo. Returns 0 where another attempt holds it.
local leases, lease, attempts, deadlines, list, queued, queues, delayed, solo, ended = unpack(KEYS)
local job, attempt, ttl, counted, becomes, message, queue, delay_ms = unpack(ARGV)
local holder = redis.call('HGET', lease, 'attempt')
if holder and holder ~= attempt then
    return 0
end
local now = now_ms()
redis.call('ZREM', leases, job)
redis.call('DEL', lease)
-- Without a holder this may be the second try of a call whose answer was lost.
if counted ~= '' and holder then
    redis.call('HINCRBY', attempts, counted, 1)
    redis.call('EXPIRE', attempts, ttl)
end
if becomes == 'done' then
    redis.call('ZREM', deadlines, job)
    redis.call('ZREM', ended, job)
elseif becomes == 'queue' then
    push(job, message, queue, list, queued, queues, now)
elseif becomes == 'delay' then
    redis.call('ZADD', delayed, now + delay_ms, queue .. ' ' .. job)
elseif becomes == 'solo' then
    redis.call('ZADD', solo, now + delay_ms, job)
end
return 1
