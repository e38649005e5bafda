// Starts Swagger UI, whose bundle docs.html loads before this.
interface SwaggerBundle {
  (options: Record<string, unknown>): unknown;
}
declare const SwaggerUIBundle: SwaggerBundle;

SwaggerUIBundle({
  url: `${document.documentElement.dataset["prefix"] ?? ""}/openapi.json`,
  dom_id: "#swagger-ui",
  deepLinking: true,
  // A token stays in the page.
  persistAuthorization: false,
  validatorUrl: null,
});

export {};
