export function Pool() {
  return <h1>Pool</h1>;
}
