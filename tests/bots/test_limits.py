"""How fast calls go: by bot, by chat, by group, over all bots; and that waiting takes nothing from others."""

from __future__ import annotations

import asyncio

import pytest

from breaker_store.bots import ChatRates
from breaker_store.bots.limits import TELEGRAM_CHATS, BotLimits, ChatId, ChatLimits, chat_of, is_message
from breaker_store.testing import in_virtual_time
from tests.bots.world import Service, World


async def send(
    world: World, service: Service, times: int, chat_id: int | str = 1, user_id: int = 101
) -> None:
    bot = world.bot(user_id)
    await asyncio.gather(
        *(bot.rate_limited_request(service.send_message, chat_id=chat_id) for _ in range(times))
    )


def most_in(seconds: float, times: list[float]) -> int:
    """Give how many of the times lie within any so many seconds."""
    return max(sum(begin <= other < begin + seconds for other in times) for begin in times)


@in_virtual_time
async def test_a_bot_makes_so_many_requests_a_second_and_a_quarter_more_after_a_quiet_while() -> None:
    world, service = World(), Service()
    await send(world, service, 300)
    assert service.called_at[-1] - service.called_at[0] == pytest.approx(9.75, abs=0.02)
    assert 30 <= most_in(1.0, service.called_at) <= 30 * 1.25


@in_virtual_time
async def test_a_rate_below_one_a_second_is_kept_too() -> None:
    world, service = World(), Service()
    bot = world.bot(requests_per_second=0.1)
    await asyncio.gather(*(bot.rate_limited_request(service.send_message) for _ in range(3)))
    assert service.called_at[-1] - service.called_at[0] == pytest.approx(20, abs=0.01)


@in_virtual_time
async def test_no_more_calls_are_under_way_than_may_be() -> None:
    world, service = World(), Service()
    service.takes_seconds = 1
    bot = world.bot(concurrency=2, requests_per_second=1_000)
    await asyncio.gather(*(bot.rate_limited_request(service.send_message) for _ in range(6)))
    assert [at - 1_000 for at in service.called_at] == pytest.approx([0, 0, 1, 1, 2, 2], abs=0.01)


@in_virtual_time
async def test_one_chat_gets_one_message_a_second_and_others_do_not_wait_for_it() -> None:
    world, one, other = World(chats=TELEGRAM_CHATS), Service(), Service()
    await asyncio.gather(send(world, one, 5, chat_id=1), send(world, other, 1, chat_id=2))
    assert [at - 1_000 for at in one.called_at] == pytest.approx([0, 1, 2, 3, 4], abs=0.01)
    assert other.called_at == pytest.approx([1_000.0])


@pytest.mark.parametrize("group", [-100123, "@channel"])
def test_a_group_gets_twenty_messages_a_minute_and_a_quarter_more_after_a_quiet_while(
    group: int | str,
) -> None:
    @in_virtual_time
    async def flood() -> None:
        world, service = World(chats=TELEGRAM_CHATS), Service()
        await send(world, service, 80, chat_id=group)
        assert service.called_at[-1] - service.called_at[0] == pytest.approx(225, abs=1)
        assert most_in(60.0, service.called_at) <= 20 * 1.25

    flood()


@in_virtual_time
async def test_a_queue_for_one_chat_leaves_the_bots_places_to_others() -> None:
    world, flooded, other = World(chats=TELEGRAM_CHATS), Service(), Service()
    bot = world.bot(concurrency=1)
    flood = [
        asyncio.ensure_future(bot.rate_limited_request(flooded.send_message, chat_id=1)) for _ in range(20)
    ]
    await asyncio.sleep(0.1)
    await bot.rate_limited_request(other.send_message, chat_id=2)
    assert other.called_at == pytest.approx([1_000.1], abs=0.01)
    for each in flood:
        each.cancel()


@in_virtual_time
async def test_all_bots_together_keep_the_common_rate() -> None:
    world = World(requests_per_second=10)
    services = [Service() for _ in range(5)]
    await asyncio.gather(
        *(send(world, service, 10, user_id=number) for number, service in enumerate(services))
    )
    times = sorted(at for service in services for at in service.called_at)
    assert times[-1] - times[0] == pytest.approx(4.75, abs=0.05)


@in_virtual_time
async def test_bots_that_hang_do_not_slow_the_others() -> None:
    world, hanging, well = World(requests_per_second=1_000), Service(), Service()
    hanging.takes_seconds = 3_600
    stuck = [asyncio.ensure_future(send(world, hanging, 50, user_id=user_id)) for user_id in range(1, 11)]
    await asyncio.sleep(5)
    before = asyncio.get_running_loop().time()
    await send(world, well, 7, user_id=99)
    assert asyncio.get_running_loop().time() == pytest.approx(before)
    for each in stuck:
        each.cancel()
    await asyncio.wait(stuck)


@in_virtual_time
async def test_who_is_cancelled_while_waiting_for_a_rate_gives_the_place_back() -> None:
    limits = BotLimits(1, 1, None, None)
    await limits.acquire(None)
    limits.release()
    waiting = asyncio.ensure_future(limits.acquire(None))
    await asyncio.sleep(0.1)
    waiting.cancel()
    await asyncio.wait([waiting])
    await asyncio.sleep(2)
    assert limits.are_free(None)


@in_virtual_time
async def test_chats_that_are_idle_are_forgotten() -> None:
    chats = ChatLimits(TELEGRAM_CHATS)
    for chat_id in range(10_000):
        await chats.of(chat_id).acquire()
        await asyncio.sleep(0.1)
    assert len(chats) < 600


@in_virtual_time
async def test_a_chat_that_is_still_limited_is_not_forgotten() -> None:
    chats = ChatLimits(TELEGRAM_CHATS)
    chat = chats.of(1)
    await chat.acquire()
    for chat_id in range(2, 5_000):
        chats.of(chat_id)
    assert chats.of(1) is chat


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        ("sendMessage", True),
        ("send_photo", True),
        ("forwardMessages", True),
        ("copyMessage", True),
        ("editMessageText", True),
        (None, True),
        ("<lambda>", True),
        ("notify", True),
        ("reply", True),
        ("sendChatAction", False),
        ("send_chat_action", False),
        ("getChatMember", False),
        ("deleteMessage", False),
    ],
)
def test_the_limit_of_a_chat_is_for_messages(operation: str | None, expected: bool) -> None:
    assert is_message(operation) is expected


@in_virtual_time
async def test_what_is_no_message_does_not_wait_for_the_chat() -> None:
    world, service = World(chats=TELEGRAM_CHATS), Service()
    bot = world.bot()
    for operation in ("sendMessage", "getChatMember", "getChatMember"):
        await bot.rate_limited_request(service.send_message, chat_id=1, operation=operation)
    assert service.called_at == pytest.approx([1_000.0] * 3)


@pytest.mark.parametrize("rates", [{"messages_per_second": 0}, {"group_messages_per_minute": -1}])
def test_rates_that_make_no_sense_are_refused(rates: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="over 0"):
        ChatRates(**rates)


@pytest.mark.parametrize(
    ("told", "chat"),
    [(7, 7), ("7", 7), ("-1007", -1007), ("@channel", "@channel"), ("9" * 5_000, "9" * 5_000), (["7"], None)],
)
def test_a_chat_is_the_same_however_it_is_written(told: object, chat: ChatId | None) -> None:
    assert chat_of(told) == chat


@in_virtual_time
async def test_what_is_no_chat_is_the_functions_own_affair() -> None:
    async def send_message(chat_id: object) -> object:
        return chat_id

    chat = object()
    assert await World(chats=TELEGRAM_CHATS).bot().rate_limited_request(send_message, chat_id=chat) is chat


@in_virtual_time
async def test_a_chat_is_not_flooded_when_the_bot_is_free_again_after_a_while() -> None:
    world, hanging, service = World(chats=TELEGRAM_CHATS), Service(), Service()
    bot = world.bot(concurrency=2)
    hanging.takes_seconds = 20
    waiting = [
        asyncio.ensure_future(bot.rate_limited_request(hanging.send_message, chat_id=each)) for each in (8, 9)
    ]
    await asyncio.sleep(0)
    waiting += [
        asyncio.ensure_future(bot.rate_limited_request(service.send_message, chat_id=1)) for _ in range(10)
    ]
    await asyncio.gather(*waiting)
    assert [at - 1_020 for at in service.called_at] == pytest.approx(range(10), abs=0.01)


@in_virtual_time
async def test_who_is_cancelled_while_its_chats_turn_is_its_own_gives_the_turn_to_the_next() -> None:
    world, hanging, service = World(chats=TELEGRAM_CHATS), Service(), Service()
    bot = world.bot(concurrency=1)
    hanging.takes_seconds = 20
    first = asyncio.ensure_future(bot.rate_limited_request(hanging.send_message, chat_id=9))
    await asyncio.sleep(0)
    second, third = (
        asyncio.ensure_future(bot.rate_limited_request(service.send_message, chat_id=1)) for _ in range(2)
    )
    await asyncio.sleep(5)
    second.cancel()
    await asyncio.gather(first, third)
    assert service.called_at == pytest.approx([1_020])
