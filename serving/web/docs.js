// Swagger UI as BentoML ships it, without the tracking that BentoML's own page loads.
SwaggerUIBundle({ url: "openapi.json", dom_id: "#swagger-ui" });
