#!lua flags=no-writes
-- ARGV: prefix, '1' to read results too, ids. Returns status ('' unknown or expired), and result, of each, flat.
local reply = {}
for i = 3, #ARGV do
  local v
  if ARGV[2] == '1' then
    v = call('HMGET', P .. 't:' .. ARGV[i], 'st', 'exp', 'res')
  else
    v = call('HMGET', P .. 't:' .. ARGV[i], 'st', 'exp')
  end
  local known = v[1] and not (v[2] and tonumber(v[2]) <= now)
  reply[#reply + 1] = known and v[1] or ''
  if ARGV[2] == '1' then
    reply[#reply + 1] = known and v[3] or ''
  end
end
return reply
