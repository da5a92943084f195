"""The stubs in the tree are what the protos say."""

from __future__ import annotations

from pathlib import Path

import grpc_tools
from grpc_tools import protoc

from rvps.proto import reference_pb2

ROOT = Path(__file__).parents[2]


def test_the_checked_in_stubs_are_those_that_the_compiler_makes(tmp_path: Path) -> None:
    protos = sorted((ROOT / "rvps/proto").glob("*.proto"))
    assert len(protos) == 2
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    include = Path(grpc_tools.__file__).parent / "_proto"
    named = [path.relative_to(ROOT).as_posix() for path in protos]
    assert protoc.main(["", f"-I{ROOT}", f"-I{include}", *outputs, *named]) == 0
    made = {path.name: path.read_text() for path in (tmp_path / "rvps/proto").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "rvps/proto").glob("*_pb2*")}
    assert kept == made, "run: make proto"


def test_numbers_and_names_are_the_fields() -> None:
    """rvps 5."""
    file = reference_pb2.DESCRIPTOR
    assert file.package == "reference"
    fields = {
        message.name: [(field.name, field.number, field.type, field.has_presence) for field in message.fields]
        for message in file.message_types_by_name.values()
    }
    assert fields == {
        "ReferenceValueQueryRequest": [("reference_value_id", 1, 9, False)],
        "ReferenceValueQueryResponse": [("reference_value_results", 1, 9, True)],
        "ReferenceValueRegisterRequest": [("message", 1, 9, False)],
        "ReferenceValueRegisterResponse": [],
    }
    service = file.services_by_name["ReferenceValueProviderService"]
    assert [method.name for method in service.methods] == ["QueryReferenceValue", "RegisterReferenceValue"]
