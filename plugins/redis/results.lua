#!lua flags=no-writes
-- ARGV: prefix, '1' to read results too, ids. Returns status ('' unknown or expired), and result, of each, flat. A large
-- result is the attempt that its key is named by, a number.
local reply = {}
for i = 3, #ARGV do
  local v
  if ARGV[2] == '1' then
    v = call('HMGET', P .. 't:' .. ARGV[i], 'st', 'exp', 'res', 'rsb', 'att')
  else
    v = call('HMGET', P .. 't:' .. ARGV[i], 'st', 'exp')
  end
  local known = v[1] and not (v[2] and tonumber(v[2]) <= now)
  reply[#reply + 1] = known and v[1] or ''
  if ARGV[2] == '1' then
    reply[#reply + 1] = known and (v[4] and tonumber(v[5] or 0) or v[3]) or ''
  end
end
return reply
