-- asked: keys. Answers ten numbers of the tenant's account, then of each key's: requests and tokens taken, open
-- reservations, tokens and money held, seeded, then tokens and money settled in the day and in the month.
expire(EXPIRED_MAX)
local answer = {}

local function tell(account)
  local numbers = {
    ceil(account.requests / PARTS), ceil(account.tokens / PARTS), account.open, account.held_tokens, account.held_usd,
    account.seeded and 1 or 0, account.day_tokens, account.day_usd, account.month_tokens, account.month_usd,
  }
  for _, number in ipairs(numbers) do answer[#answer + 1] = number end
end

local function look(key)
  local account = account_of(key)
  local was_touched = account.touched
  advance(account)
  account.touched = was_touched
  tell(account)
end

look('')
for _, key in ipairs(asked.keys) do look(key) end
save()
return answer
