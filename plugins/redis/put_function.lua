-- Store a function, unless it is there.
-- ARGV: prefix, id, name, payload, options (msgpack), then '' or value of: pr, max, tmo, bof, ttl, ron. Returns 1 if new.
local key = P .. 'f:' .. ARGV[2]
if call('EXISTS', key) == 1 then
  return 0
end
local h = { 'n', ARGV[3], 'p', ARGV[4], 'o', ARGV[5], 'c', now }
for i, field in ipairs({ 'pr', 'max', 'tmo', 'bof', 'ttl', 'ron' }) do
  if ARGV[5 + i] ~= '' then
    h[#h + 1] = field
    h[#h + 1] = ARGV[5 + i]
  end
end
call('HSET', key, unpack(h))
call('ZADD', P .. 'functions', 0, string.format('%015.0f:%s', now, ARGV[2]))
return 1
