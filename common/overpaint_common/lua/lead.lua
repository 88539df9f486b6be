-- Take or prolong the lead. Returns 1 where it is ours.
local key, token, term_ms = KEYS[1], ARGV[1], ARGV[2]
local leader = redis.call('GET', key)
if leader and leader ~= token then
    return 0
end
redis.call('SET', key, token, 'PX', term_ms)
return 1
