"""Errors as AWS answers them."""

from __future__ import annotations


class ApiError(Exception):
    """An error of a JSON API: its code (`__type`), what it says, and the HTTP status."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = status
