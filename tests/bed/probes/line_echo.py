"""A TCP server for both families: NAME PORT. Answers each line with NAME and the line."""

import asyncio
import sys

name, port = sys.argv[1], int(sys.argv[2])


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Echo lines until the client goes."""
    while line := await reader.readline():
        writer.write(f"{name} ".encode() + line)
        await writer.drain()
    writer.close()


async def serve() -> None:
    """Serve for ever."""
    server = await asyncio.start_server(answer, ["0.0.0.0", "::"], port)
    await server.serve_forever()


asyncio.run(serve())
