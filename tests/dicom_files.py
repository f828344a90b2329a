"""DICOM files that tests draw with pydicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

NAMES = (
    "Plantedname^Wilhelmine",
    "PLANTED-ID-4711",
    "19431117",
    "Dr^Plantedreferrer",
    "Plantedhospital",
    "PLANTED-ACC-99",
)
"""Values that name a person or lead to one; they stand in each file that `scan` writes."""


def ct(pixels: npt.NDArray[Any], **attributes: Any) -> Dataset:
    """A CT slice of int16 values [H, W] (or frames [N, H, W]) in Hounsfield units + 1024; attributes go over the usual ones."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
    data.PatientName, data.PatientID, data.PatientBirthDate, data.ReferringPhysicianName = NAMES[:4]
    data.InstitutionName, data.AccessionNumber = NAMES[4:]
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3.1", "1.2.3.1.1"
    data.Modality, data.SamplesPerPixel, data.PhotometricInterpretation = "CT", 1, "MONOCHROME2"
    frames = len(pixels) if pixels.ndim == 3 and pixels.shape[-1] != 3 else 1
    if frames > 1:
        data.NumberOfFrames = frames
    data.Rows, data.Columns = pixels.shape[-2:] if pixels.shape[-1] != 3 else pixels.shape[-3:-1]
    bits = pixels.dtype.itemsize * 8
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    data.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    data["PixelData"].VR = "OW"
    for name, value in attributes.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def write(path: Path, data: Dataset) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def ramp() -> npt.NDArray[np.int16]:
    """Hounsfield units −1024 to 3071 as stored values, int16 [64, 64]."""
    return np.arange(4096, dtype=np.int16).reshape(64, 64)


def series(folder: Path, patient: str, slices: int, brightness: int = 0, **attributes: Any) -> list[Path]:
    """The slices of one patient, written in the order opposite to their place, 16 × 16 px."""
    files = []
    study, of_series = generate_uid(), generate_uid()
    for number in range(slices):
        pixels = (
            np.random.default_rng([number, brightness, len(patient)]).integers(900, 1200, (16, 16)).astype(np.int16)
        )
        data = ct(
            pixels + np.int16(brightness),
            PatientID=patient,
            StudyInstanceUID=study,
            SeriesInstanceUID=of_series,
            ImagePositionPatient=[0, 0, 5.0 * (slices - number)],
            ImageOrientationPatient=[1, 0, 0, 0, 1, 0],
            InstanceNumber=number,
            WindowCenter=40,
            WindowWidth=400,
            **attributes,
        )
        files.append(write(folder / f"IM{number:04}", data))
    return files
