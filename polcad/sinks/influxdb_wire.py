"""One write to InfluxDB by its client, and what its answer means. Nothing else of polcad imports the client: 14 MiB."""

from __future__ import annotations

import contextlib
import re

from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS, WriteApi
from influxdb_client.rest import ApiException
from urllib3.exceptions import HTTPError

from polcad.errors import ConfigError
from polcad.sinks.influxdb import FailedError, InfluxDb, RefusedError
from polcad.sinks.line import PRECISION

_WRONG = frozenset({400, 413, 422})  # it is the points that are wrong
_TOO_LARGE = 413
_DROPPED = re.compile(r"dropped=([0-9]{1,9})(?![0-9])")  # of a write that was partly taken
_SHOWN = 200  # characters of an answer


class Wire:
    """Writes batches one by one; the token is read anew before each, and a new one takes effect at once."""

    def __init__(self, spec: InfluxDb) -> None:
        self._spec = spec
        self._token: str | None = None
        self._api: WriteApi | None = None

    def write(self, body: bytes) -> None:
        """Write lines compressed by gzip: RefusedError, FailedError."""
        try:
            self._ready().write(self._spec.bucket, self._spec.org, body, PRECISION)  # type: ignore[arg-type]  # a text is what its WritePrecision holds
        except ConfigError as error:
            raise FailedError(str(error)) from None
        except ApiException as error:
            raise meaning(error) from None
        except (HTTPError, OSError) as error:
            raise FailedError(f"{type(error).__name__}: {error}"[:_SHOWN]) from None
        except Exception as error:  # noqa: BLE001  # the thread goes on; the text may show the token
            raise FailedError(f"its client fails by {type(error).__name__}") from None

    def _ready(self) -> WriteApi:
        token, spec = self._spec.token(), self._spec
        if self._api is None or token != self._token:
            client = InfluxDBClient(
                spec.url, token or "", org=spec.org, timeout=round(1000 * spec.timeout_s), ssl_ca_cert=spec.ca or None
            )
            client.api_client.default_headers["Content-Encoding"] = "gzip"
            self._api, self._token = client.write_api(write_options=SYNCHRONOUS), token
        return self._api


def meaning(error: ApiException) -> RefusedError | FailedError:
    """What an answer that is no success asks for."""
    text = " ".join(str(error.message or error.reason or "no answer").split())[:_SHOWN]
    if error.status not in _WRONG:
        after_s = 0.0
        with contextlib.suppress(ValueError):  # a date
            after_s = float(error.retry_after or 0.0)
        return FailedError(f"{error.status or 'TLS'}: {text}", after_s)
    partly = _DROPPED.search(str(error.message))
    points = int(partly[1]) if partly else 0  # a refusal of none is one that was not counted
    return RefusedError(f"{error.status}: {text}", points or None, too_large=error.status == _TOO_LARGE)
