"""Event types: their names, and what decodes the data of each.

`EV_…` names and numbers: TCG PC Client Platform Firmware Profile 1.06, 10.4.1; the members of `details` are the
reference implementation's (attestation-service 7.3).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from kbs.attestation.event_log import details
from kbs.attestation.model import Json

EV_NO_ACTION: Final = 0x00000003
EV_SEPARATOR: Final = 0x00000004
EV_EVENT_TAG: Final = 0x00000006
EV_IPL: Final = 0x0000000D
EV_EFI_VARIABLE_DRIVER_CONFIG: Final = 0x80000001
EV_EFI_VARIABLE_BOOT: Final = 0x80000002
EV_EFI_VARIABLE_BOOT2: Final = 0x8000000C
EV_EFI_VARIABLE_AUTHORITY: Final = 0x800000E0


class EventType(NamedTuple):
    """One event type.

    decode: event data in, `details` out; ValueError for data that are not of the form. None: nobody decodes them.
    hashes_data: the profile says that the digest is the hash of the event data, so that other data are a lie.
    """

    name: str
    decode: Callable[[bytes], dict[str, Json]] | None = None
    hashes_data: bool = False


EVENT_TYPES: Final[dict[int, EventType]] = {
    0x00000000: EventType("EV_PREBOOT_CERT"),
    0x00000001: EventType("EV_POST_CODE", details.text),
    0x00000002: EventType("EV_UNUSED"),
    EV_NO_ACTION: EventType("EV_NO_ACTION"),
    EV_SEPARATOR: EventType("EV_SEPARATOR", details.separator, hashes_data=True),
    0x00000005: EventType("EV_ACTION", details.text, hashes_data=True),
    EV_EVENT_TAG: EventType("EV_EVENT_TAG", details.tagged),
    0x00000007: EventType("EV_S_CRTM_CONTENTS"),
    0x00000008: EventType("EV_S_CRTM_VERSION"),
    0x00000009: EventType("EV_CPU_MICROCODE"),
    0x0000000A: EventType("EV_PLATFORM_CONFIG_FLAGS", details.config_flags),
    0x0000000B: EventType("EV_TABLE_OF_DEVICES"),
    0x0000000C: EventType("EV_COMPACT_HASH", details.text),
    EV_IPL: EventType("EV_IPL", details.ipl),
    0x0000000E: EventType("EV_IPL_PARTITION_DATA"),
    0x0000000F: EventType("EV_NONHOST_CODE"),
    0x00000010: EventType("EV_NONHOST_CONFIG"),
    0x00000011: EventType("EV_NONHOST_INFO"),
    0x00000012: EventType("EV_OMIT_BOOT_DEVICE_EVENTS", details.text, hashes_data=True),
    0x80000000: EventType("EV_EFI_EVENT_BASE"),
    EV_EFI_VARIABLE_DRIVER_CONFIG: EventType("EV_EFI_VARIABLE_DRIVER_CONFIG", details.variable, hashes_data=True),
    EV_EFI_VARIABLE_BOOT: EventType("EV_EFI_VARIABLE_BOOT", details.variable),
    0x80000003: EventType("EV_EFI_BOOT_SERVICES_APPLICATION", details.image_load),
    0x80000004: EventType("EV_EFI_BOOT_SERVICES_DRIVER", details.image_load),
    0x80000005: EventType("EV_EFI_RUNTIME_SERVICES_DRIVER", details.image_load),
    0x80000006: EventType("EV_EFI_GPT_EVENT", details.partition_table, hashes_data=True),
    0x80000007: EventType("EV_EFI_ACTION", details.text, hashes_data=True),
    0x80000008: EventType("EV_EFI_PLATFORM_FIRMWARE_BLOB"),
    0x80000009: EventType("EV_EFI_HANDOFF_TABLES"),
    0x8000000A: EventType("EV_EFI_PLATFORM_FIRMWARE_BLOB2", details.short_string),
    0x8000000B: EventType("EV_EFI_HANDOFF_TABLES2", details.short_string),
    EV_EFI_VARIABLE_BOOT2: EventType("EV_EFI_VARIABLE_BOOT2", details.variable, hashes_data=True),
    0x80000010: EventType("EV_EFI_HCRTM_EVENT"),
    EV_EFI_VARIABLE_AUTHORITY: EventType("EV_EFI_VARIABLE_AUTHORITY", details.variable, hashes_data=True),
    0x800000E1: EventType("EV_EFI_SPDM_FIRMWARE_BLOB"),
    0x800000E2: EventType("EV_EFI_SPDM_FIRMWARE_CONFIG"),
}


def unknown_type(number: int) -> EventType:
    """A type that nobody documents, named after its number: `EV_UNKNOWN_0x00000099`."""
    return EventType(f"EV_UNKNOWN_0x{number:08X}")
