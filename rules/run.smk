# What happens around a run: who runs here, weights that must be had, the lock given back. No rules here.


def check_weights():
    """Weights from outside that cannot be had end a run here, not hours later."""
    import subprocess

    failed = []
    for name, encoder in PLAN.encoders.items():
        written = [
            PATHS.encoder(f"{n}/{r}/all/all/all", "encoder.json")
            for n, r in PLAN.pairs
            if n == name
        ]
        if encoder.settings.source != "weights" or all(map(os.path.exists, written)):
            continue
        command = [
            sys.executable,
            str(ROOT / "scripts/weights.py"),
            "--backbone",
            encoder.settings.backbone,
        ]
        done = subprocess.run(
            [*command, "--weights", encoder.settings.weights or "hub"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            failed.append(f"encoder {name}: {done.stderr.strip().splitlines()[-1]}")
    if failed:
        RunRecord(W).release()
        raise WorkflowError("\n".join(failed))


onstart:
    note = RunRecord(W).take(sys.argv)
    if note:
        print(note, file=sys.stderr)
    check_weights()


onsuccess:
    RunRecord(W).release()


onerror:
    RunRecord(W).release()
