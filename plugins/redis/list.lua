#!lua flags=no-writes
-- Find tasks, newest first, looking at a bounded number of them.
-- ARGV: prefix, group or '', cursor or '', limit, scan_max, status or '', function or '', tag or '', cause or ''
-- Returns {cursor ('' at the end), ids …}.
local key = ARGV[2] ~= '' and P .. 'g:' .. ARGV[2] or P .. 'index'
local limit, scan = tonumber(ARGV[4]), tonumber(ARGV[5])
local ids = call('ZRANGE', key, ARGV[3] ~= '' and '(' .. ARGV[3] or '+', '-', 'BYLEX', 'REV', 'LIMIT', 0, scan)
local reply = { '' }

local function has_tag(packed)
  for _, tag in ipairs(packed and cmsgpack.unpack(packed) or {}) do
    if tag == ARGV[8] then
      return true
    end
  end
  return false
end

for i, id in ipairs(ids) do
  local v = call('HMGET', P .. 't:' .. id, 'st', 'exp', 'fn', 'tag', 'cau')
  if v[1] and not (v[2] and tonumber(v[2]) <= now)
    and (ARGV[6] == '' or v[1] == ARGV[6])
    and (ARGV[7] == '' or v[3] == ARGV[7])
    and (ARGV[9] == '' or v[5] == ARGV[9])
    and (ARGV[8] == '' or has_tag(v[4])) then
    reply[#reply + 1] = id
  end
  if #reply > limit or i == scan then
    if i < #ids or #ids == scan then
      reply[1] = id
    end
    break
  end
end
return reply
