from _typeshed import ReadableBuffer, WriteableBuffer

def fill(
    slots: WriteableBuffer,
    keys: ReadableBuffer,
    weights: ReadableBuffer,
    numbers: ReadableBuffer,
    /,
) -> None: ...
