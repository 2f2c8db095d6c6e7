#!lua flags=no-writes
-- ARGV: prefix, attempts kept, ids. Returns for each {fields in the order of FIELDS, payload's and result's size,
-- function's name, then start and end of each attempt}, or false for an unknown or expired one.
local FIELDS = {
  'st', 'fn', 'sub', 'pr', 'max', 'due', 'dl', 'tmo', 'grp', 'tag', 'end', 'exp', 'cau', 'err', 'cxl', 'att', 'rof',
  'plb', 'rsb', 'prg',
}
local names, reply = {}, {}
for i = 3, #ARGV do
  local key = P .. 't:' .. ARGV[i]
  local v = call('HMGET', key, unpack(FIELDS))
  if not v[1] or (v[12] and tonumber(v[12]) <= now) then
    reply[#reply + 1] = false
  else
    local fn = v[2]
    names[fn] = names[fn] or call('HGET', P .. 'f:' .. fn, 'n') or ''
    v[18] = v[18] and tonumber(v[18]) or call('HSTRLEN', key, 'pl')
    v[19] = v[19] and tonumber(v[19]) or call('HSTRLEN', key, 'res')
    v[21] = names[fn]
    local last = tonumber(v[16] or 0)
    local first = math.max(1, last - ARGV[2] + 1)
    v[22] = first
    local wanted = {}
    for n = first, last do
      wanted[#wanted + 1] = 'S' .. n
      wanted[#wanted + 1] = 'E' .. n
    end
    if #wanted > 0 then
      for n, value in ipairs(call('HMGET', key, unpack(wanted))) do
        v[22 + n] = value
      end
    end
    reply[#reply + 1] = v
  end
end
return reply
