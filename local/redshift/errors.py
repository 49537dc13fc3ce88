"""The one exception that the local Redshift turns into an error message for its client."""


class SqlError(Exception):
    """
    An error to report to the client, as PostgreSQL's ErrorResponse carries it.

    :param message: what is wrong, one line
    :param sqlstate: five-character SQLSTATE code
    :param hint: what to do about it
    """

    def __init__(self, message: str, sqlstate: str = "XX000", hint: str = "") -> None:
        super().__init__(message)
        self.message, self.sqlstate, self.hint = message, sqlstate, hint


def unsupported(what: str, hint: str = "") -> SqlError:
    """
    Return the refusal of something that Redshift may know but that the local Redshift does not.

    :param what: the construct, as the user wrote it
    :param hint: what to write instead
    """
    return SqlError(f"{what} is not supported by the local Redshift", sqlstate="0A000", hint=hint)
