"""Drives a group through redis-py as it is, in RESP2 and RESP3, one request at a time, pipelined, as a cluster client,
and from asyncio. Arguments: the leader's client address and a follower's.
"""

import asyncio
import sys

import redis
import redis.asyncio
from redis.cluster import ClusterNode, RedisCluster


def expect(seen, wanted, what):
    """Ends the script where a reply is not what it must be."""
    if seen != wanted:
        sys.exit(f"{what}: {seen!r}, and not {wanted!r}")


def split(address):
    """`host:port` as redis-py wants it."""
    host, port = address.rsplit(":", 1)
    return host, int(port)


def one_at_a_time(address, protocol):
    """Every command of the example, by itself."""
    host, port = split(address)
    client = redis.Redis(host, port, protocol=protocol, decode_responses=True)
    expect(client.flushall(), True, "flushall")
    expect(client.ping(), True, "ping")
    expect(client.echo("hi"), "hi", "echo")
    expect(client.set("name", "value"), True, "set")
    expect(client.get("name"), "value", "get")
    expect(client.get("none"), None, "get of nothing")
    expect(client.set("name", "other", nx=True), None, "set nx")
    expect(client.set("name", "other", xx=True, get=True), "value", "set xx get")
    expect([client.incr("n"), client.incrby("n", 5), client.decr("n")], [1, 6, 5], "counting")
    expect([client.append("name", "!"), client.strlen("name")], [6, 6], "append")
    expect(client.mset({"a": "1", "b": "2"}), True, "mset")
    expect(client.mget("a", "none", "b"), ["1", None, "2"], "mget")
    expect(client.exists("a", "b", "none"), 2, "exists")
    expect(sorted(client.keys("[ab]")), ["a", "b"], "keys")
    expect(client.dbsize(), 4, "dbsize")
    expect(client.delete("a", "b", "none"), 2, "delete")
    expect(client.info()["role"] in ("master", "slave"), True, "info")
    try:
        client.incr("name")
    except redis.ResponseError as error:
        expect("not an integer" in str(error), True, "incr of text")
    else:
        sys.exit("incr of text was accepted")
    binary = redis.Redis(host, port, protocol=protocol)
    blob = bytes(range(256)) * 1000
    binary.set(b"\x00\r\n", blob)
    expect(binary.get(b"\x00\r\n"), blob, "binary value")
    client.close()
    binary.close()


def pipelined(address):
    """Many requests in one write, answered in order."""
    host, port = split(address)
    client = redis.Redis(host, port)
    pipeline = client.pipeline(transaction=False)
    for number in range(500):
        pipeline.set(f"p:{number}", number).get(f"p:{number}").incr("pipelined")
    replies = pipeline.execute()
    expect(replies[0::3], [True] * 500, "pipelined set")
    expect(replies[1::3], [str(number).encode() for number in range(500)], "pipelined get")
    expect(replies[2::3], list(range(1, 501)), "pipelined incr")
    client.close()


def as_cluster(address):
    """A cluster client finds the leader from any server."""
    host, port = split(address)
    cluster = RedisCluster(startup_nodes=[ClusterNode(host, port)], decode_responses=True)
    for number in range(100):
        cluster.set(f"c:{number}", number)
    expect([cluster.get(f"c:{number}") for number in range(100)], [str(number) for number in range(100)], "cluster get")
    cluster.close()


def as_operator(leader, follower):
    """The operator's commands, which no client library knows by name."""
    for protocol in (2, 3):
        host, port = split(leader)
        client = redis.Redis(host, port, protocol=protocol, decode_responses=True)
        rows = client.execute_command("RAFT.MEMBERS")
        members = [dict(zip(row[::2], row[1::2])) if isinstance(row, list) else row for row in rows]
        expect([member["id"] for member in members], [1, 2, 3], "members")
        expect({member["role"] for member in members}, {"voter"}, "roles")
        expect({member["becomes"] for member in members}, {"voter"}, "what they become")
        for wrong, text in (
            (("RAFT.ADD", 2, "127.0.0.1:1"), "member already"),
            (("RAFT.ADD", 9, "nowhere"), "HOST:PORT"),
            (("RAFT.REMOVE", 9), "not a member"),
            (("RAFT.TRANSFER", 9), "no voter"),
            (("RAFT.CANCEL",), "no change"),
        ):
            try:
                client.execute_command(*wrong)
            except redis.ResponseError as error:
                expect(text in str(error), True, f"{wrong}: {error}")
            else:
                sys.exit(f"{wrong} was taken")
        client.set("for a snapshot", protocol)
        expect(client.execute_command("RAFT.SNAPSHOT") > 0, True, "snapshot")
        index, verdict, *replicas = client.execute_command("RAFT.DIGEST")
        expect((index > 0, verdict), (True, "agreed"), "comparison of replicas")
        expect([row[1] for row in replicas], ["given"] * len(replicas), "digests of replicas")
        client.close()
    host, port = split(follower)
    client = redis.Redis(host, port)
    try:
        client.execute_command("RAFT.TRANSFER")
    except redis.ResponseError as error:
        expect(str(error).endswith(leader), True, f"moved: {error}")
    else:
        sys.exit("a follower handed leadership over")
    client.close()


async def from_asyncio(address):
    """Several tasks over a pool of connections."""
    host, port = split(address)
    pool = redis.asyncio.BlockingConnectionPool(host=host, port=port, max_connections=20)
    async with redis.asyncio.Redis.from_pool(pool) as client:
        replies = await asyncio.gather(*(client.incr("tasks") for _ in range(200)))
        expect(sorted(replies), list(range(1, 201)), "incr from tasks")


def main():
    leader, follower = sys.argv[1:3]
    for protocol in (2, 3):
        one_at_a_time(leader, protocol)
    pipelined(leader)
    as_cluster(follower)
    as_operator(leader, follower)
    asyncio.run(from_asyncio(leader))
    print(f"redis-py {redis.__version__}: every reply as it must be")


if __name__ == "__main__":
    main()
