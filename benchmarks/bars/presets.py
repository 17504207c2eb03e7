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

# What taught the voice is named here, beside its figures: nothing of these has taught the one that ships.
LABELS = {
    "whisper": "Whisper tiny",
    "pocketsphinx": "PocketSphinx",
    "distillmos": "DistillMOS",
    "dnsmos": "DNSMOS",
    "campplus": "CAM++",
    "resemblyzer": "Resemblyzer",
}
