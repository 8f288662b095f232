import asyncio
from itertools import count

from polcad.backlog import MOMENT_S, Counters, Inbox, Limits, Outbox
from polcad.wire import MAX_PAYLOAD_BYTES, Message


def inbox(limits: Limits) -> tuple[Inbox, Counters]:
    counters, ticks = Counters(), count()
    return Inbox(counters, limits, lambda: float(next(ticks))), counters


def telemetry(number: int, node: str = "n1") -> Message:
    return Message(f"a/{node}/telemetry", b"%d" % number)


def plan(number: int) -> Message:
    return Message("a/plan", b"%d" % number)


def event(number: int) -> Message:
    return Message("a/event", b"%d" % number, 1)


def taken(box: Inbox) -> list[bytes]:
    return [received.message.payload for received in asyncio.run(box.take())]


def sent(box: Outbox) -> list[bytes]:
    return [message.payload for message in iter(box.pop, None)]


def test_a_full_inbox_drops_the_oldest_telemetry_and_never_a_plan() -> None:
    box, counters = inbox(Limits(telemetry=3))
    for number in range(5):
        box.put(plan(100 + number))
        box.put(telemetry(number))
    assert taken(box) == [b"100", b"101", b"102", b"2", b"103", b"3", b"104", b"4"]
    assert (counters.received, counters.dropped_in) == (10, 2)


def test_a_node_that_floods_is_cut_short_and_no_other() -> None:
    counters, now = Counters(), [0.0]
    box = Inbox(counters, Limits(a_topic=3), lambda: now[0])
    for number in range(10):
        box.put(telemetry(number))
    box.put(telemetry(100, "n2"))
    box.put(plan(200))
    now[0] = MOMENT_S
    box.put(telemetry(10))
    assert sorted(taken(box)) == [b"0", b"1", b"10", b"100", b"2", b"200"]
    assert (counters.received, counters.dropped_in) == (13, 7)


def test_even_plans_are_bounded() -> None:
    box, counters = inbox(Limits(others=2))
    for number in range(5):
        box.put(plan(number))
    assert taken(box) == [b"3", b"4"]
    assert counters.dropped_in == 3


def test_an_oversized_message_is_counted_and_not_kept() -> None:
    box, counters = inbox(Limits())
    box.put(Message("a/plan", bytes(MAX_PAYLOAD_BYTES + 1)))
    box.put(plan(1))
    assert taken(box) == [b"1"]
    assert (counters.received, counters.oversized) == (2, 1)


def test_an_event_that_comes_twice_is_taken_once_and_a_plan_as_often_as_it_comes() -> None:
    box, counters = inbox(Limits())
    for message in (event(1), event(2), event(1)._replace(qos=0), plan(1), plan(1), event(1)._replace(topic="b/event")):
        box.put(message)
    assert taken(box) == [b"1", b"2", b"1", b"1", b"1"]
    assert counters.received == 5


def test_a_reader_wakes_for_a_message_and_for_the_end() -> None:
    async def read() -> list[int]:
        box, _ = inbox(Limits())
        sizes = []

        async def reader() -> None:
            while batch := await box.take():
                sizes.append(len(batch))

        task = asyncio.create_task(reader())
        await asyncio.sleep(0)
        box.put(plan(1))
        box.put(plan(2))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        box.put(plan(3))
        box.close()
        await asyncio.wait_for(task, 1.0)
        return sizes

    assert asyncio.run(read()) == [2, 1]


def test_the_outbox_holds_the_newest_of_each_topic() -> None:
    counters = Counters()
    box = Outbox(counters, Limits())
    for number in range(3):
        for message in (telemetry(number), plan(10 + number), telemetry(20 + number, "n2")):
            box.put(message)
    assert sent(box) == [b"2", b"12", b"22"]
    assert counters.dropped_out == 4  # telemetry of two nodes; a plan overtaken is no loss


def test_the_outbox_is_emptied_once_its_sender_is_through_and_not_while_it_still_sends() -> None:
    async def send() -> list[bool]:
        box, still = Outbox(Counters(), Limits()), asyncio.Event()

        async def pump() -> None:
            while True:
                await box.get()
                await still.wait()

        box.put(plan(1))
        sender, flushed = asyncio.create_task(pump()), asyncio.create_task(box.emptied())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        sending = flushed.done()
        still.set()
        await asyncio.wait_for(flushed, 1.0)
        sender.cancel()
        return [sending, flushed.done()]

    assert asyncio.run(send()) == [False, True]


def test_a_sites_events_are_kept_in_the_outbox_as_a_rows_are() -> None:
    box = Outbox(Counters(), Limits())
    for number in range(3):
        box.put(Message("polcad/v1/site/site_event", b"%d" % number, 1))
    assert sent(box) == [b"0", b"1", b"2"]


def test_the_outbox_holds_events_in_order_and_bounded() -> None:
    counters = Counters()
    box = Outbox(counters, Limits(events=3))
    for number in range(5):
        box.put(event(number))
    assert sent(box) == [b"2", b"3", b"4"]
    assert counters.dropped_out == 2


def test_what_could_not_be_sent_returns_unless_something_newer_came() -> None:
    counters = Counters()
    box = Outbox(counters, Limits(events=2))
    box.put_back(plan(1))
    box.put(event(2))
    box.put_back(event(1))
    assert sent(box) == [b"1", b"1", b"2"]
    for newer in (plan(2), telemetry(2), event(2), event(3)):
        box.put(newer)
    for older in (plan(1), telemetry(1), event(1)):
        box.put_back(older)
    assert sent(box) == [b"2", b"2", b"2", b"3"]
    assert counters.dropped_out == 2  # the telemetry and the event
