from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from overpaint_producer.local.redis import EmbeddedRedis
from tests.support.redis_proxy import RedisProxy, commands, delay, drop_response, reset
from tests.support.resp import Command, Frames
from tests.support.stack import eventually


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), append_only=False) as running:
        yield running


@pytest.fixture
def direct(redis: EmbeddedRedis) -> Iterator[Redis]:
    with connected(redis.url) as client:
        client.flushall()
        yield client


@pytest.fixture
def proxy(redis: EmbeddedRedis) -> Iterator[RedisProxy]:
    with RedisProxy(redis.url) as running:
        yield running


@pytest.fixture
def client(proxy: RedisProxy) -> Iterator[Redis]:
    with connected(proxy.url) as client:
        yield client


def connected(url: str, timeout: float = 5.0) -> Redis:
    return Redis.from_url(url, decode_responses=True, socket_timeout=timeout, retry=Retry(NoBackoff(), 0))


def test_without_a_fault_everything_passes(client: Redis, direct: Redis) -> None:
    """Given no fault, when a pipeline, a script and a large value pass, then Redis and the client see them whole."""
    large = "x" * 3_000_000
    with client.pipeline() as pipe:
        pipe.set("a", large)
        pipe.hset("h", mapping={"one": "1", "two": "2"})
        pipe.lrange("nothing", 0, -1)
        answers = pipe.execute()

    assert answers == [True, 2, []]
    assert client.get("a") == large == direct.get("a")
    assert client.hgetall("h") == {"one": "1", "two": "2"}
    assert client.eval("return {1, {KEYS[1], ARGV[1]}}", 1, "k", "v") == [1, ["k", "v"]]


def test_commands_are_recorded_by_connection(proxy: RedisProxy, client: Redis) -> None:
    """Given two clients, when they send commands, then the record tells name, first key, connection and order."""
    with connected(proxy.url) as other:
        client.set("mine", 1)
        other.blpop(["first", "second"], timeout=0.01)
        client.eval("return 1", 1, "lease", "x")

    seen = [c for c in proxy.recorded if c.name in ("SET", "BLPOP", "EVAL")]
    assert [(c.name, c.key) for c in seen] == [("SET", "mine"), ("BLPOP", "first"), ("EVAL", "lease")]
    assert seen[0].connection == seen[2].connection != seen[1].connection
    assert seen[0].at < seen[1].at < seen[2].at


def test_while_down_it_refuses_and_afterwards_it_serves_the_same_port(proxy: RedisProxy, client: Redis) -> None:
    """Given a connected client, when the proxy is down, then its connection is cut and new ones are refused."""
    client.ping()

    with proxy.down():
        for _ in range(2):
            with pytest.raises(RedisConnectionError):
                client.ping()

    assert client.ping()


def test_paused_it_accepts_and_answers_nothing_until_it_goes_on(proxy: RedisProxy, client: Redis) -> None:
    """Given a paused proxy, when clients ask, then they wait in vain; what was sent passes once it goes on."""
    client.ping()
    with connected(proxy.url, timeout=0.2) as impatient, ThreadPoolExecutor(1) as pool:
        with proxy.pause():
            with pytest.raises(RedisTimeoutError):
                impatient.ping()
            waiting = pool.submit(client.set, "late", "1")
            with pytest.raises(TimeoutError):
                waiting.result(0.2)

        assert waiting.result(5)


def test_slow_it_takes_its_time_each_way(proxy: RedisProxy, client: Redis) -> None:
    """Given a slow proxy, when a client asks, then the round trip takes both ways' time, and less afterwards."""
    client.ping()
    with proxy.slow(0.1):
        started = time.monotonic()
        client.ping()
        slow = time.monotonic() - started

    started = time.monotonic()
    client.ping()

    assert 0.2 <= slow < 2
    assert time.monotonic() - started < 0.1


def test_a_dropped_answer_follows_what_the_server_has_done(proxy: RedisProxy, client: Redis, direct: Redis) -> None:
    """Given a rule for one INCRBY among pipelined ones, when it is met, then Redis has acted and the client is cut."""
    rule = proxy.on(commands("INCRBY", "b"), drop_response(), times=1)

    with client.pipeline(transaction=False) as pipe:
        pipe.incr("a")
        pipe.incr("b")
        with pytest.raises(RedisConnectionError):
            pipe.execute()

    assert rule.hits == 1
    assert (direct.get("a"), direct.get("b")) == ("1", "1")
    assert client.incr("b") == 2


def test_a_popped_message_can_be_lost_on_its_way(proxy: RedisProxy, client: Redis, direct: Redis) -> None:
    """Given a client blocked in BRPOP, when its answer is dropped, then nobody has the message."""
    proxy.on(commands("BRPOP"), drop_response(), times=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(client.brpop, ["queue"], 0)
        eventually(lambda: any(c.name == "BRPOP" for c in proxy.recorded), "BRPOP sent", 5)
        direct.lpush("queue", "message")

        assert isinstance(waiting.exception(5), RedisConnectionError)
    assert direct.llen("queue") == 0


def test_a_reset_command_never_reaches_the_server(proxy: RedisProxy, client: Redis, direct: Redis) -> None:
    """Given a rule that resets, when a command meets it, then the client is cut and Redis knows nothing of it."""
    proxy.on(commands("INCRBY"), reset(), times=1)

    with pytest.raises(RedisConnectionError):
        client.incr("a")

    assert direct.get("a") is None


def test_a_late_answer_comes(proxy: RedisProxy, client: Redis) -> None:
    """Given a rule that delays GET, when a client asks, then that answer alone is late."""
    proxy.on(commands("GET"), delay(0.2))
    started = time.monotonic()
    client.get("a")
    late = time.monotonic() - started
    client.ping()

    assert 0.2 <= late < 1
    assert time.monotonic() - started - late < 0.2


def test_connections_are_cut_by_what_they_do(proxy: RedisProxy, client: Redis) -> None:
    """Given one client in BRPOP and another idle, when the BRPOP connection is cut, then the other goes on."""
    client.ping()
    with connected(proxy.url) as popping, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(popping.brpop, ["queue"], 0)
        eventually(lambda: any(c.name == "BRPOP" for c in proxy.recorded), "BRPOP sent", 5)
        count = proxy.cut(commands("BRPOP"))

        assert isinstance(waiting.exception(5), RedisConnectionError)
    assert count == 1
    client.connection_pool.reset()
    assert client.ping()


def test_a_hundred_clients_at_once(proxy: RedisProxy) -> None:
    """Given a hundred connections, when each sends thirty commands, then none is lost and none takes long."""
    barrier = threading.Barrier(100)

    def work(_: int) -> int:
        with connected(proxy.url, timeout=20) as own:
            barrier.wait(20)
            for _ in range(30):
                own.incr("count")
        return 30

    with ThreadPoolExecutor(100) as pool:
        sent = sum(pool.map(work, range(100)))

    with connected(proxy.url) as own:
        assert own.getdel("count") == str(sent)
    assert sum(c.name == "INCRBY" for c in proxy.recorded) == sent
    eventually(lambda: proxy.open_connections == 0, "connections closed", 5)


def test_rules_can_be_cleared(proxy: RedisProxy, client: Redis) -> None:
    """Given a rule, when the proxy is cleared, then it is not in force any more and the record is empty."""
    proxy.on(commands(), reset())
    proxy.clear()

    assert client.ping()
    assert all(c.name in ("PING", "CLIENT", "HELLO", "SELECT") for c in proxy.recorded)


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_frames_are_cut_wherever_the_network_cuts_them(step: int) -> None:
    """Given values of both protocol versions, when they arrive in pieces, then each comes out whole and unchanged."""
    values = [
        b"+OK\r\n",
        b"$-1\r\n",
        b"*0\r\n",
        b"$4\r\na\r\nb\r\n",
        b"*2\r\n*1\r\n:1\r\n$1\r\nx\r\n",
        b"%1\r\n+k\r\n*-1\r\n",
        b"|1\r\n+ttl\r\n:9\r\n$2\r\nhi\r\n",
        b">2\r\n+message\r\n=5\r\ntxt:x\r\n",
        b"_\r\n",
    ]
    stream, frames = b"".join(values), Frames()

    cut = [frame for i in range(0, len(stream), step) for frame in frames.feed(stream[i : i + step])]

    assert cut == values


def test_a_script_is_known_by_its_first_key() -> None:
    """Given an EVALSHA command, when it is parsed, then its key is the script's first, not its hash."""
    frame = b"*5\r\n$7\r\nevalsha\r\n$3\r\nabc\r\n$1\r\n1\r\n$5\r\nlease\r\n$1\r\nx\r\n"

    command = Command.parse(frame, 7)

    assert (command.name, command.key, command.connection) == ("EVALSHA", "lease", 7)
