"""What monitoring asks of the state actor: of the database, and of what its process counts in memory."""

from __future__ import annotations

from argus_ray.core.monitoring import REFUSALS, GatewayReport, ReadMonitoring, ReportGateway, StateFacts
from argus_ray.service import audit
from argus_ray.service.unit_of_work import UnitOfWork
from argus_ray.store import forecasts, orders, totals


def read(unit: UnitOfWork, action: ReadMonitoring) -> StateFacts:
    meters = unit.ports.meters
    if action.report is not None:
        _take(unit, action.report)
    db = unit.db
    found = totals.read(db)
    waiting, live = totals.waiting(db), totals.live(db, unit.now)
    backup_at = meters.store.backup_at
    seconds = dict(live.gpu_seconds)
    for user_id, ended in found.pop("gpu_seconds", {}).items():
        seconds[user_id] = seconds.get(user_id, 0.0) + ended
    return StateFacts(
        epoch=meters.store.epoch,
        maintenance=orders.maintenance_since(db) is not None,
        totals=found,
        start_estimates={verdict.value: n for verdict, n in forecasts.counts(db, None).items()},
        queue_waits=totals.queue_waits(db),
        tasks=totals.tasks(db),
        waiting=waiting.reasons,
        oldest_wait_s=0.0 if waiting.oldest is None else max(0.0, unit.now - waiting.oldest),
        gpus_wanted=waiting.gpus,
        gpus_claimed=sum(live.gpus.values()),
        stalled=live.stalled,
        user_gpus=live.gpus,
        user_gpu_seconds=meters.rising(seconds),
        user_tasks=totals.of_users(db),
        commits=meters.store.commits.histogram(),
        batches=meters.batches.histogram(),
        size=totals.size(db),
        streams=meters.streams(),
        backup_age_s=None if backup_at is None else max(0.0, unit.now - backup_at),
    )


def report(unit: UnitOfWork, action: ReportGateway) -> None:
    _take(unit, action.report)


def _take(unit: UnitOfWork, report: GatewayReport) -> None:
    unit.ports.meters.note_streams(report)
    for reason, count in report.refused.items():
        if reason in REFUSALS and count > 0:
            totals.add(unit.db, totals.REFUSED, reason, count)
    for address, count in unit.ports.meters.bad_tokens_due(report):
        audit.tell_bad_tokens(unit, address, count)
