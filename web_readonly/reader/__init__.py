"""The read model: the store's rows as models of ``schema.status``. Pages, API and command line use it."""

from web_readonly.reader.backups import BackupFilter
from web_readonly.reader.clients import ClientFilter
from web_readonly.reader.database import InvalidQuery, StoreUnavailable
from web_readonly.reader.facade import Reader
from web_readonly.reader.runs import RunFilter
from web_readonly.reader.source import EventFilter

__all__ = ["BackupFilter", "ClientFilter", "EventFilter", "InvalidQuery", "Reader", "RunFilter", "StoreUnavailable"]
