"""Of whom each preset of the embedded voice is made, and who of the listeners took part in its training."""

# Preset: the teacher's voice that it learnt from, or None for a person. The first is the default.
PRESETS: dict[str, str | None] = {
    "rms": "flite rms",
    "slt": "flite slt",
    "awb": "flite awb",
    "kal16": "flite kal16",
    "reader": None,
}
READER = "reader"  # the preset of a person, whose clips `--reader` names

# What taught is named beside its figures: Whisper's encoder teaches the codec's semantic encoder.
LABELS = {
    "whisper": "Whisper tiny (taught the codec)",
    "pocketsphinx": "PocketSphinx",
    "distillmos": "DistillMOS",
    "dnsmos": "DNSMOS",
    "campplus": "CAM++",
    "resemblyzer": "Resemblyzer",
}
