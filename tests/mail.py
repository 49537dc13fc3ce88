"""A mail server that keeps what it receives."""

import email
import email.policy
import json
from email.message import EmailMessage

ONCALL = "smtp:oncall@example.com"


class Mailbox:
    """What a mail server has received."""

    def __init__(self) -> None:
        self.messages: list[EmailMessage] = []

    async def handle_DATA(self, server, session, envelope):
        message = email.message_from_bytes(envelope.content, policy=email.policy.default)
        assert isinstance(message, EmailMessage)
        self.messages.append(message)
        return "250 OK"

    def subjects(self) -> list[str]:
        return [message["Subject"] for message in self.messages]

    def text(self, number: int = 0) -> str:
        body = self.messages[number].get_body()
        assert body
        return body.get_content()


def smtp_connection(port):
    extra = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
    return json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": port, "extra": extra})
