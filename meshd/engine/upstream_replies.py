"""What one HTTP answer of an adopted server is: a refusal, or an answer to be read, and how."""

from __future__ import annotations

from meshd.engine import raw
from meshd.engine.http_client import Exchange
from meshd.engine.openai_answer import AnswerStream, PlainAnswer
from meshd.engine.openai_failures import STATUS_CODES, failure_of_status
from meshd.engine.openai_vectors import VectorAnswer
from protocol.jobs import Failure, Job

Reader = AnswerStream | PlainAnswer | VectorAnswer | raw.RawAnswer


def is_refusal(job: Job, status: int) -> bool:
    """Is this answer no answer? A raw one is, with most statuses; what only the server can say of
    a request is for the one who made it."""
    if job.kind == "raw":
        return status >= 500 or status in STATUS_CODES
    return status != 200


def failure_in(exchange: Exchange, body: bytes, server: str) -> Failure:
    """What a refusal of this server says, whose body has been read."""
    again, there = exchange.header("retry-after"), exchange.header("location")
    return failure_of_status(exchange.status, body, again, there, server=server)


def reader_of(job: Job, exchange: Exchange, began: float) -> Reader:
    """By what the server sends, not by what was asked: some answer a stream in one piece."""
    kind = exchange.header("content-type")
    if job.kind == "raw":
        return raw.RawAnswer(exchange.status, kind, began)
    if job.kind == "embedding":
        return VectorAnswer(job, began)
    is_stream = kind.lower().startswith("text/event-stream")
    return (AnswerStream if is_stream else PlainAnswer)(job, began)
