-- What wrk sends, and what it counts; see wrk.py, which sets these variables. Each request takes the next line of
-- BENCH_TOKENS and of BENCH_PATHS, and BENCH_BODY with @N@ replaced by a number that no other request has.

local function lines(name)
  local found = {}
  local path = os.getenv(name)
  if path then for line in io.lines(path) do found[#found + 1] = line end end
  return found
end

local function content(name)
  local path = os.getenv(name)
  if not path then return nil end
  local file = assert(io.open(path, "rb"))
  local all = file:read("*a")
  file:close()
  return all
end

local threads = {}

function setup(thread)
  threads[#threads + 1] = thread
end

local tokens, paths, body, method, kind, start, record, n

function init()
  tokens, paths, body = lines("BENCH_TOKENS"), lines("BENCH_PATHS"), content("BENCH_BODY")
  method, kind = os.getenv("BENCH_METHOD") or "GET", os.getenv("BENCH_TYPE")
  start, n = os.getenv("BENCH_START") or "0", 0
  local path = os.getenv("BENCH_RECORD")
  if path then record = assert(io.open(path, "ab")) end
  statuses, first_odd = {}, nil
end

function request()
  n = n + 1
  local headers = { ["Content-Type"] = kind }
  if #tokens > 0 then headers["Authorization"] = "Bearer " .. tokens[n % #tokens + 1] end
  local path = #paths > 0 and paths[n % #paths + 1] or nil
  return wrk.format(method, path, headers, body and (body:gsub("@N@", start .. n)))
end

function response(status, _, answer)
  local key = tostring(status)
  statuses[key] = (statuses[key] or 0) + 1
  if status >= 400 and not first_odd then first_odd = answer:sub(1, 300) end
  if record and status == 201 then
    record:write(answer, "\n")
    record:flush()
  end
end

function done(summary, latency)
  local all, odd = {}, ""
  for _, thread in ipairs(threads) do
    for status, count in pairs(thread:get("statuses")) do all[status] = (all[status] or 0) + count end
    odd = thread:get("first_odd") or odd
  end
  local counts = {}
  for status, count in pairs(all) do counts[#counts + 1] = string.format("%s=%d", status, count) end
  local errors = summary.errors
  print(string.format(
    "BENCH seconds=%f p50_ms=%f p99_ms=%f max_ms=%f connect=%d read=%d write=%d timeout=%d statuses=%s",
    summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3, latency.max / 1e3,
    errors.connect, errors.read, errors.write, errors.timeout, table.concat(counts, ",")))
  print("BENCH-ODD " .. odd:gsub("%s+", " "))
end
