"""What a user of the embedded stack can mend."""


class EmbeddedError(Exception):
    """One sentence of cause, one of remedy; shown without a traceback."""

    def __init__(self, cause: str, remedy: str) -> None:
        super().__init__(f"{cause} {remedy}")
        self.cause = cause
        self.remedy = remedy
