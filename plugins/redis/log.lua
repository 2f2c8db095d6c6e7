#!lua flags=no-writes
-- What is kept of the output of a task.
-- ARGV: prefix, id, first and last place to look at, bytes_max
-- Returns false for an unknown or expired task, else {status, 1 if there is more, then place, stream, text, instant of
-- each piece}.
local PAGE = 32
local v = call('HMGET', P .. 't:' .. ARGV[2], 'st', 'exp')
if not v[1] or (v[2] and tonumber(v[2]) <= now) then
  return false
end
local log, from, to, room = P .. 'l:' .. ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local reply = { v[1], 0 }
repeat
  local entries = call('XRANGE', log, from, to, 'COUNT', PAGE)
  for _, entry in ipairs(entries) do
    if room <= 0 then
      break
    end
    from = '(' .. entry[1]
    room = room - #entry[2][4]
    for _, value in ipairs({ entry[1], entry[2][2], entry[2][4], entry[2][6] }) do
      reply[#reply + 1] = value
    end
  end
until room <= 0 or #entries < PAGE
if #call('XRANGE', log, from, to, 'COUNT', 1) > 0 then
  reply[2] = 1
end
return reply
