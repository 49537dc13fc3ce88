"""The one exception that the local Redshift turns into an error message for its client."""


class SqlError(Exception):
    """
    An error to report to the client, as PostgreSQL's ErrorResponse carries it.

    :param message: what is wrong, one line
    :param sqlstate: five-character SQLSTATE code
    :param hint: what to do about it
    :param detail: more of what is wrong
    """

    def __init__(self, message: str, sqlstate: str = "XX000", hint: str = "", detail: str = "") -> None:
        super().__init__(message)
        self.message, self.sqlstate, self.hint, self.detail = message, sqlstate, hint, detail


def unsupported(what: str, hint: str = "") -> SqlError:
    """
    Return the refusal of something that Redshift may know but that the local Redshift does not.

    :param what: the construct, as the user wrote it
    :param hint: what to write instead
    """
    return SqlError(f"{what} is not supported by the local Redshift", sqlstate="0A000", hint=hint)


def service_error(message: str, context: str, hint: str = "", code: int = 8001) -> SqlError:
    """
    Return the failure of a COPY at another AWS service, with the block of details that Redshift adds.

    https://docs.aws.amazon.com/redshift/latest/dg/s3serviceexception-error.html

    :param message: what is wrong, one line
    :param context: what Redshift was doing
    :param hint: what to do about it
    :param code: Redshift's own number of the error
    """
    line = "-" * 47
    detail = f"\n  {line}\n  error:  {message}\n  code:      {code}\n  context:   {context}\n  {line}"
    return SqlError(message, hint=hint, detail=detail)
