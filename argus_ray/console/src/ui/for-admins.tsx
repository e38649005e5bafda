import { href } from "../lib/route";

/** Instead of a page whose calls need an admin's token. */
export function ForAdmins() {
  return (
    <div class="empty">
      <h1>This page is for administrators</h1>
      <p>Your token is a user's. An administrator signs in with a token of the service's own.</p>
      <p><a class="button" href={href("tasks")}>To your tasks</a></p>
    </div>
  );
}
