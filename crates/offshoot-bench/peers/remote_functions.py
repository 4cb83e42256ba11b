"""What runs inside Mitogen's contexts; its importer forwards this module."""
import mitogen.core


def nothing():
    return None


def echo(data):
    return data


@mitogen.core.takes_router
def drain(reply, router):
    """Hands a sender back, then counts what comes over it."""
    channel = mitogen.core.Receiver(router)
    reply.send(channel.to_sender())
    return sum(len(message.unpickle()) for message in channel)


def pour(sender, nbytes, chunk):
    block = bytes(chunk)
    for _ in range(nbytes // chunk):
        sender.send(block)
    sender.close()
