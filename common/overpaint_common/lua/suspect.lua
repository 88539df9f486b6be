-- Take the suspect that is due the longest, with a lease on it. Returns {job, now, started, outages, crashes} or nil.
local solo, leases = unpack(KEYS)
local attempt, worker, queue, lease_ms, ttl, lease_prefix, attempts_prefix, status_prefix, status_ttl = unpack(ARGV)
local now = now_ms()
local job = redis.call('ZRANGEBYSCORE', solo, '-inf', now, 'LIMIT', 0, 1)[1]
if not job then
    return nil
end
redis.call('ZREM', solo, job)
local lapses = redis.call('ZSCORE', leases, job)
if lapses and tonumber(lapses) > now then
    return nil
end
local attempts = attempts_prefix .. job
redis.call('HINCRBY', attempts, 'started', 1)
redis.call('EXPIRE', attempts, ttl)
hold(leases, lease_prefix .. job, job, attempt, worker, queue, lease_ms, now)
begin(status_prefix .. job, worker, 'wait', status_ttl)
local found = counts(attempts)
return {job, now, found[1], found[2], found[3]}
