"""Common header names, in their usual spellings."""

_NAMES = """
    accept accept-charset accept-encoding accept-language authorization cache-control connection
    content-encoding content-length content-type cookie date dnt expect forwarded from host
    if-match if-none-match origin pragma priority referer sec-fetch-dest sec-fetch-mode
    sec-fetch-site sec-fetch-user te traceparent tracestate transfer-encoding
    upgrade-insecure-requests user-agent via x-api-key x-blnk-key x-forwarded-for
    x-forwarded-host x-forwarded-method x-forwarded-port x-forwarded-proto x-forwarded-server
    x-forwarded-uri x-original-method x-original-uri x-original-url x-real-ip x-request-id
"""

COMMON_NAMES = {
    spelling.encode(): name.encode()
    for name in _NAMES.split()
    for spelling in (name, name.title(), name.title().replace("Api", "API"))
}
"""Lowercase name by each usual spelling; a name from this table needs no validation."""
