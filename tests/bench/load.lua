-- What wrk sends: POST of a text.
-- Arguments after `--`: size=BYTES of the body; then, if wanted, one of
--   trace           a header of its own in each request, as tracing clients send it
--   PATH PATH ...   these in turn, instead of the URL's

local function cycle(paths)
   local requests, at = {}, 0
   for i, path in ipairs(paths) do
      requests[i] = wrk.format(nil, path)
   end
   function request()
      at = at % #requests + 1
      return requests[at]
   end
end

local function trace()
   local count = 0
   function request()
      count = count + 1
      wrk.headers["traceparent"] = string.format("00-%032x-%016x-01", count, count)
      return wrk.format()
   end
end

function init(arguments)
   local paths = {}
   wrk.method = "POST"
   wrk.headers["Content-Type"] = "text/plain"
   for _, argument in ipairs(arguments) do
      local size = argument:match("^size=(%d+)$")
      if size then
         wrk.body = string.rep("x", tonumber(size))
      elseif argument == "trace" then
         trace()
      else
         table.insert(paths, argument)
      end
   end
   if #paths > 0 then
      cycle(paths)
   end
end
