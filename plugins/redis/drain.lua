#!lua flags=allow-oom
-- Ask a worker to leave. ARGV: prefix, worker. Returns 1, or 0 when no dispatcher that lives has reported it.
for _, name in ipairs(call('ZRANGE', P .. 'dispatchers', '(' .. now, '+inf', 'BYSCORE')) do
  local report = call('HGET', P .. 'fleet:' .. name, 'r')
  if report and workers_in(report)[ARGV[2]] then
    call('ZADD', P .. 'drains', now, ARGV[2])
    return 1
  end
end
return 0
