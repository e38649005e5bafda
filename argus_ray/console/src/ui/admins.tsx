import type { ComponentChildren } from "preact";
import { isAdmin } from "../api/session";
import { Empty } from "./parts";

/** What only administrators see; the service refuses others the same. */
export function ForAdmins({ children }: { children: ComponentChildren }) {
  return isAdmin.value ? <>{children}</> : <div class="card"><Empty><h1>For administrators</h1><p>This page needs an administrator's token.</p></Empty></div>;
}
