"""What a client of Python's `websockets` sees of a server: run by scripts/test-clients."""

import asyncio
import sys

import websockets


async def main(url):
    # No automatic pings: silence has to be silence.
    async with websockets.connect(url, ping_interval=None, compression=None) as socket:
        await socket.send("ping")
        assert await socket.recv() == "pong"
        await (await socket.ping(b"payload"))
        for message in ["", "é" * 1000, b"", bytes(range(256)) * 500]:
            await socket.send(message)
            assert await socket.recv() == message
        await socket.send(["frag", "ment", "ed"])
        assert await socket.recv() == "fragmented"
    assert socket.close_code == 1000, socket.close_code
    silent = await websockets.connect(url, ping_interval=None)
    await silent.send("ping")
    assert await silent.recv() == "pong"
    begun = asyncio.get_running_loop().time()
    await asyncio.wait_for(silent.wait_closed(), 10)
    silence = asyncio.get_running_loop().time() - begun
    assert silent.close_code == 1001, silent.close_code
    assert 0.95 <= silence <= 3, silence
    print(f"websockets {websockets.__version__}: closed with 1001 after {silence:.2f} s of silence")


asyncio.run(main(sys.argv[1]))
