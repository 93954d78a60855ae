-- asked: ids. Answers how many of them are open.
local renewed = 0
for _, id in ipairs(asked.ids) do
  if call('HEXISTS', OPEN, id) == 1 then
    call('ZADD', LEASES, now + LEASE_MS, id)
    renewed = renewed + 1
  end
end
save()
return { renewed }
