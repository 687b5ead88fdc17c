"""For all tests."""

import signal

# A shell starts what it puts into the background with SIGINT ignored, which children inherit: tests of Ctrl-C, and the
# programs that they start, need it.
signal.signal(signal.SIGINT, signal.default_int_handler)
