-- Arguments: a file with the raw request, the first id. Every "{id}" in the request becomes an id that no other
-- request of the run has, and every "{of20}" that modulo 20.
local parts, id = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local template = file:read("*a")
  file:close()
  id = tonumber(arguments[2])
  if template:find("{next}", 1, true) then
    -- Several requests in turn.
    local turns, turn = {}, 0
    for text in (template .. "{next}"):gmatch("(.-){next}") do
      turns[#turns + 1] = text
    end
    request = function()
      id = id + 1
      turn = turn % #turns + 1
      return (turns[turn]:gsub("{id}", string.format("%012d", id)))
    end
    return
  end
  for part in (template .. "{id}"):gmatch("(.-){id}") do
    parts[#parts + 1] = part
  end
  local cycles = template:find("{of20}", 1, true) ~= nil
  if cycles then
    request = function()
      id = id + 1
      return (table.concat(parts, string.format("%012d", id)):gsub("{of20}", string.format("%02d", id % 20)))
    end
  elseif #parts == 1 then
    -- wrk calls format once when there is no request function, and then never enters Lua again.
    wrk.format = function() return template end
  else
    request = function()
      id = id + 1
      return table.concat(parts, string.format("%012d", id))
    end
  end
end

function done(summary, latency)
  local e = summary.errors
  io.write(string.format(
    '\nRESULT {"requests": %d, "bytes": %d, "microseconds": %d, "p50": %d, "p99": %d, ' ..
      '"errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.bytes, summary.duration, latency:percentile(50), latency:percentile(99),
    e.connect, e.read, e.write, e.status, e.timeout))
end
