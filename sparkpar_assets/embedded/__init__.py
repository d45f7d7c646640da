"""The stack that needs no cloud: emulators and a Spark cluster on this machine."""
