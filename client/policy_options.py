"""The options of borgmatic that any director may use, by name. ``client.policy`` asks; the reference prints them."""

from __future__ import annotations


def _names(*blocks: str, **nested: str) -> frozenset[str]:
    top = {name for block in blocks for name in block.split()}
    below = {f"{option}.{name}" for option, names in nested.items() for name in names.split()}
    return frozenset(top | set(nested) | below)


_DATABASE = """name label hostname port username password
    restore_hostname restore_port restore_username restore_password"""
_MYSQL = f"""{_DATABASE} skip_names container restore_container socket_path restore_socket_path password_transport
    tls restore_tls events routines tablespaces format add_drop_database"""
_PUSHOVER = " ".join(
    f"{state} {state}.device {state}.expire {state}.html {state}.message {state}.priority {state}.retry {state}.sound "
    f"{state}.title {state}.ttl {state}.url {state}.url_title"
    for state in ("start", "finish", "fail")
)
_NTFY = " ".join(
    f"{state} {state}.message {state}.priority {state}.tags {state}.title" for state in ("start", "finish", "fail")
)
_APPRISE = " ".join(f"{state} {state}.body {state}.title" for state in ("start", "finish", "fail", "log"))
_PING = "create_slug ping_body_limit ping_url send_logs states verify_tls"

HARMLESS = _names(
    # What is backed up, and how
    """source_directories source_directories_must_exist working_directory patterns exclude_patterns exclude_caches
    exclude_if_present exclude_nodump keep_exclude_tags one_file_system numeric_ids atime ctime birthtime flags
    read_special unsafe_skip_path_validation_before_create files_changed files_cache checkpoint_interval
    checkpoint_volume chunker_params compression recompress upload_rate_limit upload_buffer_size retries retry_wait
    umask lock_wait constants zfs btrfs""",
    # Archives, what is kept of them, and Borg's own ways
    """archive_name_format archive_hostname archive_username file_list_format
    archive_list_format encryption_passphrase use_chunks_archive borg_files_cache_ttl keep_within keep_secondly
    keep_minutely keep_hourly keep_daily keep_weekly keep_monthly keep_yearly keep_13weekly keep_3monthly
    compact_threshold check_repositories check_last""",
    # What is said about it
    """color verbosity syslog_verbosity log_file_verbosity log_file_format monitoring_verbosity log_json progress
    statistics quick_statistics list_details default_actions skip_actions""",
    repositories="path label encryption id_hash key_location append_only storage_quota make_parent_directories",
    borg_exit_codes="code treat_as",
    bootstrap="store_config_files",
    checks="""name frequency only_run_on max_duration count_tolerance_percentage data_sample_percentage
    data_tolerance_percentage""",
    lvm="snapshot_size",
    influxdb_databases="""name label bucket_id password tls verify_tls hostname port organization_id organization_name
    active_configuration restore_bucket restore_organization full_replace compression""",
    postgresql_databases=f"""{_DATABASE} container restore_container no_owner format compression ssl_mode ssl_cert
    ssl_key ssl_root_cert ssl_crl""",
    mariadb_databases=_MYSQL,
    mysql_databases=_MYSQL,
    mongodb_databases=f"""{_DATABASE} container restore_container password_transport authentication_database format""",
    sqlite_databases="name label path restore_path",
    openldap_databases="name label",
    apprise=f"services services.url services.label send_logs logs_size_limit states {_APPRISE}",
    cronitor="ping_url",
    healthchecks=_PING,
    watchgoose=_PING,
    loki="url labels labels.* send_logs tls tls.cert_path tls.key_path",
    ntfy=f"topic server username password access_token states {_NTFY}",
    pagerduty="integration_key send_logs",
    pushover=f"token user states {_PUSHOVER}",
    sentry="data_source_name_url monitor_slug environment states",
    uptime_kuma="push_url states verify_tls",
    zabbix="""itemid host key server username password api_key states start start.value finish finish.value fail
    fail.value""",
)
"""Every option of borgmatic 2.1.10 that runs nothing, chooses no program, writes nowhere and weakens no protection.

Fixed programs of an option's own (``pg_dump``, ``zfs``, ``docker inspect``) are what those options are for.
"""
