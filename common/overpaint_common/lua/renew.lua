-- Prolong a lease, or take it again where it is gone. Returns 0 where another attempt holds the job by now.
local leases, lease = unpack(KEYS)
local job, attempt, worker, queue, lease_ms = unpack(ARGV)
local holder = redis.call('HGET', lease, 'attempt')
if holder and holder ~= attempt then
    return 0
end
hold(leases, lease, job, attempt, worker, queue, lease_ms, now_ms())
return 1
