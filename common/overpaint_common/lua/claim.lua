-- Take a lease on a job whose ticket was fetched. Returns {verdict, now, started, outages, crashes, holder}.
local leases, lease, attempts, status, queued, newest = unpack(KEYS)
local job, attempt, worker, queue, lease_ms, ticket_ms, ttl, status_ttl = unpack(ARGV)
local now = now_ms()
redis.call('ZREM', queued, job)
local queued_at, mark = tonumber(ticket_ms), tonumber(redis.call('GET', newest) or 0)
-- A mark in the future, as after Redis' clock was set back, would make every ticket look lost.
if queued_at <= now and (queued_at > mark or mark > now) then
    redis.call('SET', newest, ticket_ms)
end
local state = redis.call('HGET', status, 'state')
if state == 'succeeded' or state == 'failed' or state == 'cancelled' or state == 'expired' then
    return {'finished', now, 0, 0, 0, ''}
end
local lapses = redis.call('ZSCORE', leases, job)
if lapses and tonumber(lapses) > now then
    return {'held', now, 0, 0, 0, redis.call('HGET', lease, 'worker') or ''}
end
if lapses then
    blame(attempts, status)
end
redis.call('HINCRBY', attempts, 'started', 1)
redis.call('EXPIRE', attempts, ttl)
hold(leases, lease, job, attempt, worker, queue, lease_ms, now)
begin(status, worker, 'fetch', status_ttl)
local found = counts(attempts)
return {'claimed', now, found[1], found[2], found[3], worker}
