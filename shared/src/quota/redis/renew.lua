-- asked: ids. Answers how many of them are open.
expire(EXPIRED_MAX)
read(OPEN, asked.ids, opens)
local renewed = 0
for _, id in ipairs(asked.ids) do
  if opens[id] then
    leased[id] = true
    renewed = renewed + 1
  end
end
save()
return { renewed }
